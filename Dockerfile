# The search server and all commands. For a CPU, and for an NVIDIA GPU:
#
#   docker build -t unicross --build-arg TORCH_INDEX=... .      # the index of PyTorch's CPU builds, see pytorch.org
#   docker build -t unicross:gpu --build-arg DEVICE=gpu .
#   podman build --format docker -t unicross .                      # OCI's own format has no HEALTHCHECK
#
#   docker run --rm -v ./pictures:/pictures:ro -v unicross:/data unicross index laion/CLIP-ViT-B-32-laion2B-s34B-b79K /pictures --store /data/store
#   docker run --rm -v ./pictures:/pictures:ro -v unicross:/data -p 127.0.0.1:8080:8080 unicross
#
# tests/image_steps.sh does in a plain shell what is done here.
FROM python:3.11-slim AS build
ARG DEVICE=cpu
ARG VERSION=0.1.0
ARG TORCH_INDEX=
COPY . /source
RUN VERSION=$VERSION TORCH_INDEX=$TORCH_INDEX /source/.ci/install-for-image /source /opt/unicross $DEVICE

FROM python:3.11-slim
COPY --from=build /opt/unicross /opt/unicross
RUN useradd --create-home --uid 1000 unicross && mkdir /data && chown unicross /data
USER unicross
WORKDIR /data
VOLUME /data
ENV PATH=/opt/unicross/bin:$PATH HF_HOME=/data/huggingface
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["unicross"]
CMD ["serve", "/data/store", "--host", "0.0.0.0"]
