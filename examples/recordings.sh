#!/bin/sh
# Lists, downloads and deletes recordings with curl: sh examples/recordings.sh
set -eu
url=${BERTH_URL:-http://127.0.0.1:3000}
auth="X-API-Key: ${BERTH_API_KEY:-}"

curl -sSf -H "$auth" "$url/recordings/?page=1&page_size=10"
echo
newest=$(curl -sSf -H "$auth" "$url/recordings/?page_size=1" | sed -n 's/.*"filename":"\([^"]*\)".*/\1/p')
[ -n "$newest" ] || { echo "there are no recordings yet"; exit 0; }
curl -sSf -H "$auth" "$url/recordings/$newest" -o "$newest"
ls -l "$newest"
curl -sSf -H "$auth" -X DELETE "$url/recordings/$newest"
echo
