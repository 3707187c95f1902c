#!/usr/bin/env bash
# Does in a plain shell what the Dockerfile does: installs, indexes drawn pictures, serves, and asks for health.
# `make image-steps` runs it; it needs the network for the packages.
set -euo pipefail
cd "$(dirname "$0")/.."
source=$PWD work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
.ci/install-for-image "$source" "$work/unicross" cpu
cd "$work"
unset PYTHONPATH
export PATH=$work/unicross/bin:$PATH
python -c 'from pathlib import Path; from unicross.demo.scenes import write_demo_set as draw; draw(Path("data"), 200, 40, 0)'
unicross train demo data.root=data train.threads=1 'stages=[{name: align, epochs: 1, losses: {image_text: 1.0}}]' --out run
unicross index run data/images --store store
port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
unicross serve store --host 0.0.0.0 --port "$port" --api-key "$(printf 'k%.0s' {1..20})" &
server=$!
health=$(sed -n "s/^ *CMD \[\"python\", \"-c\", \"\(.*\)\"\]$/\1/p" "$source/Dockerfile" | sed "s/8080/$port/")
for _ in $(seq 150); do
    if python -c "$health" 2>/dev/null; then
        echo "the server of the image is healthy"
        exit 0
    fi
    sleep 2
done
echo "the server did not become healthy" >&2
exit 1
