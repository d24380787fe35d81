#!/usr/bin/env bash
# Builds Berth's images: `npm run images [-- [--fresh] [runtime] [service] [novnc]]`, all three by default.
#
# An image that was built from the same inputs is left as it is, so this is quick when there is nothing to do; --fresh
# builds all the same, from a new base, for the security updates of Debian's packages.
#
#   ENGINE      the command to build with: docker (default) or podman
#   BASE        the base image: debian:trixie-slim (default), or that pinned by its digest
#   EXTRA_CA    PEM text of a CA to trust while npm downloads, behind a proxy that inspects TLS. Default: the CAs that
#               were added to this machine the way update-ca-certificates(8) says
#
# Where no registry can be reached, the base image debian:trixie-slim is made here, once, by debootstrap (as root) from
# the mirror that this machine's own apt uses.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ENGINE=${ENGINE:-docker}
BASE=${BASE:-debian:trixie-slim}
# Docker's builder without BuildKit does all that these Dockerfiles ask for; with it, say so in the environment.
fresh=''
wanted=()
for arg in "$@"; do
  case $arg in
    --fresh) fresh=1 ;;
    runtime | service | novnc) wanted+=("$arg") ;;
    *) echo "usage: deploy/images.sh [--fresh] [runtime] [service] [novnc]" >&2; exit 2 ;;
  esac
done
[ ${#wanted[@]} -gt 0 ] || wanted=(runtime service novnc)

say() { echo "images: $*" >&2; }

work=$(mktemp -d)
# Not into what debootstrap may have left mounted below it.
trap 'rm -rf --one-file-system "$work"' EXIT

# --- the base image --------------------------------------------------------------------------------------------------

# The mirror of apt's source with this label ("Debian", "Debian-Security"), or nothing on another distribution.
mirror_of() {
  { apt-get indextargets --format "\$(LABEL) \$(REPO_URI)" 'Created-By: Packages' 'Origin: Debian' 2>/dev/null || true; } |
    awk -v label="$1" '$1 == label { print $2; exit }'
}

# What Docker's own Debian images do: no documentation, no translations, no package lists, no fsync after each file.
slim() {
  local root=$1 main=$2 security=$3
  {
    echo "deb $main trixie main"
    echo "deb $main trixie-updates main"
    [ -z "$security" ] || echo "deb $security trixie-security main"
  } >"$root/etc/apt/sources.list"
  echo 'Acquire::Languages "none";' >"$root/etc/apt/apt.conf.d/berth-slim"
  {
    echo force-unsafe-io
    printf 'path-exclude=/usr/share/%s/*\n' doc man info locale lintian
    echo 'path-include=/usr/share/doc/*/copyright'
  } >"$root/etc/dpkg/dpkg.cfg.d/berth-slim"
  find "$root/usr/share/doc" ! -type d ! -name copyright -delete
  find "$root/usr/share/doc" -type d -empty -delete
  rm -rf "$root"/usr/share/{man,info,locale,lintian}/* "$root"/var/{cache/apt,cache/debconf,lib/apt/lists,log}/*
}

make_base() {
  if [ "$(id -u)" -ne 0 ] || ! command -v debootstrap >/dev/null; then
    say "$BASE cannot be pulled. Make it here as root, with the package debootstrap: sudo npm run images"
    exit 1
  fi
  local dir=$work/base main security
  main=$(mirror_of Debian)
  security=$(mirror_of Debian-Security)
  # Without a mirror debootstrap takes its own default, and writes it into the tree.
  timeout 600 debootstrap --variant=minbase trixie "$dir" ${main:+"$main"} >"$dir.log" 2>&1 ||
    { tail -n 20 "$dir.log" >&2; say "$BASE could not be made"; exit 1; }
  [ -n "$main" ] || main=$(awk '$1 == "deb" { print $2; exit }' "$dir/etc/apt/sources.list")
  slim "$dir" "$main" "$security"
  tar -C "$dir" --numeric-owner -c . | "$ENGINE" import --change 'CMD ["bash"]' - "$BASE" >/dev/null
}

base() {
  if [ -z "$fresh" ] && "$ENGINE" image inspect "$BASE" >/dev/null 2>&1; then return; fi
  if timeout 300 "$ENGINE" pull "$BASE" >/dev/null 2>&1; then return; fi
  say "making $BASE (no registry answers)"
  make_base
  say "made $BASE in $SECONDS s"
}

# --- our images ------------------------------------------------------------------------------------------------------

# Exactly what a Dockerfile gets to see: no data, keys or history of this folder can get into an image by accident.
SOURCES=(package.json package-lock.json .npmrc tsconfig.json openapi.yaml src cmd)

build() {
  local name=$1 dockerfile=$2 hash old dir started=$SECONDS
  shift 2
  dir=$work/$name
  mkdir "$dir"
  tar -c "$dockerfile" "$@" | tar -x -C "$dir"
  # The base counts too: a newer one is a reason to build.
  hash=$(
    cd "$dir"
    {
      "$ENGINE" image inspect --format '{{.Id}}' "$BASE"
      find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum | cut -c 1-64
  )
  if [ -z "$fresh" ] &&
    [ "$("$ENGINE" image inspect --format '{{index .Config.Labels "berth.inputs"}}' "$name" 2>/dev/null)" = "$hash" ]; then
    return
  fi
  say "building $name"
  old=$("$ENGINE" image inspect --format '{{.Id}}' "$name" 2>/dev/null || true)
  if ! timeout 1200 "$ENGINE" build ${fresh:+--no-cache} --tag "$name" --label "berth.inputs=$hash" \
    --build-arg BASE="$BASE" --build-arg EXTRA_CA="$EXTRA_CA" --file "$dir/$dockerfile" "$dir" >"$dir.log" 2>&1; then
    tail -n 40 "$dir.log" >&2
    say "$name could not be built"
    exit 1
  fi
  # Refused, as it should be, while a sandbox still runs from it.
  [ -z "$old" ] || [ "$old" = "$("$ENGINE" image inspect --format '{{.Id}}' "$name")" ] ||
    "$ENGINE" rmi "$old" >/dev/null 2>&1 || true
  say "built $name in $((SECONDS - started)) s: $("$ENGINE" image inspect --format '{{.Size}}' "$name" |
    awk '{ printf "%.0f MB", $1 / 1e6 }')"
}

"$ENGINE" version >/dev/null 2>&1 || { say "no container engine answers ($ENGINE version)"; exit 1; }
if [ -z "${EXTRA_CA+set}" ]; then
  EXTRA_CA=$(cat /usr/local/share/ca-certificates/*.crt 2>/dev/null || true)
fi
base
for image in "${wanted[@]}"; do
  case $image in
    runtime) build berth-runtime runtime-image/Dockerfile "${SOURCES[@]}" runtime-image/policies.json ;;
    service) build berth Dockerfile "${SOURCES[@]}" runtime-image/seccomp.json ;;
    novnc) build berth-novnc novnc-client-image/Dockerfile package.json package-lock.json .npmrc novnc-client-image ;;
  esac
done
