"""Renders k8s/overlays into the files people apply: `make render`."""
