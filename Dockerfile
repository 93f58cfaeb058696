# The quickstart, on the CPU, without root rights:
#   docker build -t diffpolicy .
#   docker run --rm --user "$(id -u)" -v "$PWD:/work" diffpolicy
# It writes quickstart/report.html into the current folder. Any other command works as well:
#   docker run --rm --user "$(id -u)" -v "$PWD:/work" diffpolicy sweep --help
FROM python:3.12-slim-bookworm

# A C compiler for the engine `native`, and Mesa's EGL for pictures without a display.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev libegl1 libgl1 libgl1-mesa-dri \
 && rm -rf /var/lib/apt/lists/*

COPY . /src
RUN pip install --no-cache-dir "torch>=2.11,<2.14" --index-url https://download.pytorch.org/whl/cpu \
 && pip install --no-cache-dir /src

# Caches of compiled engines and of matplotlib go to the home folder, whoever runs the container.
ENV MUJOCO_GL=egl HOME=/tmp/home
RUN mkdir -m 1777 /tmp/home /work
USER 1000
WORKDIR /work
ENTRYPOINT ["diffpolicy"]
CMD ["quickstart", "--out", "quickstart"]
