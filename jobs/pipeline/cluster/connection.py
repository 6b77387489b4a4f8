"""Which cluster: the one this pod is in, or the current context of a person's kubeconfig."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from pipeline_common.errors import ConfigError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

TOKEN_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
# Where k8s/services.yaml and k8s/pipeline.yaml put everything.
NAMESPACE: Final = "alignment"
# What the library raises in a file that is no kubeconfig, besides its own ConfigException.
UNREADABLE: Final = (yaml.YAMLError, OSError, ValueError, AttributeError)


@dataclass(frozen=True)
class Connection:
    """A way to one cluster."""

    client: ApiClient
    name: str
    """The context's name, or `in-cluster`."""
    namespace: str


def explain_kubeconfig(error: Exception) -> str:
    """That the kubeconfig cannot be read, without what stands in it: it holds keys."""
    named = os.environ.get("KUBECONFIG") or "~/.kube/config"
    why = error.strerror if isinstance(error, OSError) else type(error).__name__
    return f"{named} cannot be read as a kubeconfig ({why}); mend it, or name another in KUBECONFIG"


def connect(namespace: str | None = None) -> Connection:
    """The cluster this pod is in, else the current context of KUBECONFIG or ~/.kube/config.

    Raises:
        ConfigError: there is neither, or the file is no kubeconfig.
    """
    from kubernetes.client import ApiClient, Configuration
    from kubernetes.config import ConfigException, kube_config, load_incluster_config

    settings = Configuration()
    try:
        if TOKEN_FILE.is_file() and "KUBERNETES_SERVICE_HOST" in os.environ:
            load_incluster_config(client_configuration=settings)
            name = "in-cluster"
        else:
            # The library reads KUBECONFIG when it is imported, and never again.
            files = os.environ.get("KUBECONFIG") or "~/.kube/config"
            _, active = kube_config.list_kube_config_contexts(files)
            kube_config.load_kube_config(files, client_configuration=settings)
            name = active["name"]
    except (ConfigException, KeyError, TypeError) as error:
        raise ConfigError(
            f"no Kubernetes cluster is configured here ({str(error).strip() or 'no current context'})"
        ) from error
    except UNREADABLE as error:
        raise ConfigError(explain_kubeconfig(error)) from error
    # Retries are ours, below: the library's own have no pauses and no end that anyone is told of.
    settings.retries = False
    return Connection(ApiClient(settings), name, namespace or os.environ.get("POD_NAMESPACE") or NAMESPACE)
