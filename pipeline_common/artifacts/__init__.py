"""Where artifacts are kept: a directory, or a bucket with local copies of what was read."""

from pipeline_common.artifacts.directory import DirectoryStore, replace_file
from pipeline_common.artifacts.store import ArtifactStore, artifacts_uri, open_store

__all__ = ["ArtifactStore", "DirectoryStore", "artifacts_uri", "open_store", "replace_file"]
