#!/usr/bin/env bash
# Builds the launcher's image and stores the template.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: scripts/dataflow/build.sh IMAGE TEMPLATE [ADVSEG]

  IMAGE     name that the launcher's image gets, in a registry that Dataflow reaches:
            europe-west1-docker.pkg.dev/my-project/images/advseg-launcher:1.2
  TEMPLATE  where the template goes: gs://my-bucket/templates/advseg-label.json
  ADVSEG    the advseg image for linux/amd64, see scripts/container (default: advseg)

Needs docker and gcloud, both logged in. To label with the template:

  gcloud dataflow flex-template run label-1 --region europe-west1 \
      --template-file-gcs-location TEMPLATE --staging-location gs://my-bucket/staging \
      --parameters 'input=gs://images/**/*.tar,bundle=gs://models/first,output=gs://labels/first'

Several input patterns hold commas; gcloud then wants another separator, as
"gcloud topic escaping" describes: --parameters '^;^input=gs://a/*.tar,gs://b/*.tar;bundle=...'
EOF
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
[[ $# -eq 2 || $# -eq 3 ]] || { usage >&2; exit 2; }
image=$1 template=$2 advseg=${3:-advseg}
[[ $template == gs://?*/?* ]] || { echo "build.sh: TEMPLATE $template must be an object in a bucket: gs://my-bucket/name.json" >&2; exit 2; }
for tool in docker gcloud; do
  command -v "$tool" >/dev/null || { echo "build.sh: $tool is not installed" >&2; exit 1; }
done
cd "$(dirname "$0")/../.."

docker build --platform linux/amd64 -f scripts/dataflow/Dockerfile --build-arg "ADVSEG=$advseg" -t "$image" .
docker push "$image"
gcloud dataflow flex-template build "$template" --image "$image" --sdk-language GO --metadata-file scripts/dataflow/metadata.json
