"""The pipeline on Kubernetes: stages as Jobs, and the commands that speak to a cluster."""
