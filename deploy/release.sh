#!/usr/bin/env bash
# Publishes one version: the image for both architectures with SBOM, provenance and signature, and the charts.
#   deploy/release.sh REPOSITORY VERSION        (docs/release.md; needs docker buildx, cosign, helm, and to be logged in)
# COSIGN_KEY signs the image with a key in place of one's identity; HELM_KEY, in HELM_KEYRING, signs the charts.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=${1:?repository of the image, such as registry.example.com/security/keytrail}
version=${2:?the version, as in collector/src/keytrail/__init__.py}
base=python:3.12-slim-bookworm

for program in docker cosign helm git python3; do
  if ! command -v "$program" >/dev/null; then
    echo "release: there is no $program on the PATH" >&2
    exit 2
  fi
done
if ! grep -q "\"$version\"" collector/src/keytrail/__init__.py; then
  echo "release: this tree is not version $version" >&2
  exit 2
fi
if [ -n "$(git status --porcelain)" ]; then
  echo "release: the tree has changes that are not committed" >&2
  exit 2
fi

# Pinned at this moment, and named in the image: what is built is known, and mended packages are in it.
digest=$(docker buildx imagetools inspect "$base" --format '{{.Manifest.Digest}}')
metadata=$(mktemp)
trap 'rm -f "$metadata"' EXIT
docker buildx build --platform linux/amd64,linux/arm64 --pull --no-cache \
  --build-arg "BASE=$base@$digest" --build-arg "VERSION=$version" --build-arg "REVISION=$(git rev-parse HEAD)" \
  --annotation "index:org.opencontainers.image.base.name=$base" \
  --annotation "index:org.opencontainers.image.base.digest=$digest" \
  --sbom=true --provenance=mode=max --tag "$repository:$version" --metadata-file "$metadata" --push .
image=$repository@$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["containerimage.digest"])' "$metadata")

# Over the digest: a tag may be moved after it was signed.
cosign sign --yes --recursive ${COSIGN_KEY:+--key "$COSIGN_KEY"} "$image"

helm dependency update deploy/helm/keytrail-with-tetragon
for chart in keytrail keytrail-with-tetragon; do
  helm package "deploy/helm/$chart" --destination dist \
    ${HELM_KEY:+--sign --key "$HELM_KEY"} ${HELM_KEYRING:+--keyring "$HELM_KEYRING"}
  helm push "dist/$chart-$version.tgz" "oci://${repository%/*}/charts"
done
echo "$image"
