# All six images with one command: `make images`, or `docker buildx bake -f docker/docker-bake.hcl` with these variables
# in the environment.
variable "REGISTRY" { default = "" }
variable "TAG" { default = "dev" }
variable "BASE_IMAGE" { default = "nvidia/cuda:13.0.2-base-ubuntu24.04" }
variable "ORCHESTRATOR_BASE_IMAGE" { default = "ubuntu:24.04" }
variable "PYTHON" { default = "python3" }
variable "TORCH_BUILD" { default = "cuda" }
variable "GIT_COMMIT" { default = "" }
variable "GIT_DIRTY" { default = "" }
variable "VERSION" { default = "" }

# Build secrets, as names of files: nothing of them is left in an image. An unset one is not given at all. Without
# `make images`, a recent bake reads files from outside of this folder only with BUILDX_BAKE_ENTITLEMENTS_FS=0.
variable "INDEX_URL_FILE" { default = "" }
variable "FIND_LINKS_FILE" { default = "" }
variable "CA_FILE" { default = "" }

group "default" {
  targets = ["environment", "prepare", "train", "evaluate", "analyze", "orchestrator"]
}

target "image" {
  matrix = {
    item = ["environment", "prepare", "train", "evaluate", "analyze", "orchestrator"]
  }
  name       = item
  target     = item
  context    = "."
  dockerfile = "Dockerfile.gpu"
  tags       = ["${REGISTRY == "" ? "" : "${trimsuffix(REGISTRY, "/")}/"}alignment-pipeline-${item}:${TAG}"]
  args = {
    BASE_IMAGE              = BASE_IMAGE
    ORCHESTRATOR_BASE_IMAGE = ORCHESTRATOR_BASE_IMAGE
    PYTHON                  = PYTHON
    TORCH_BUILD             = TORCH_BUILD
    GIT_COMMIT              = GIT_COMMIT
    GIT_DIRTY               = GIT_DIRTY
    VERSION                 = VERSION
  }
  secret = concat(
    INDEX_URL_FILE == "" ? [] : ["id=index_url,src=${INDEX_URL_FILE}"],
    FIND_LINKS_FILE == "" ? [] : ["id=find_links,src=${FIND_LINKS_FILE}"],
    CA_FILE == "" ? [] : ["id=ca,src=${CA_FILE}"],
  )
}
