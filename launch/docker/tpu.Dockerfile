# The image of a TPU host: docker build -f launch/docker/tpu.Dockerfile -t sftmix-tpu . (launch/gke.sh image pushes it)
FROM python:3.12-slim
WORKDIR /sftmix
COPY . .
RUN pip install --no-cache-dir -c constraints.txt '.[tpu,gcs]'
ENV PYTHONUNBUFFERED=1
CMD ["python", "-m", "sftmix_jax.train", "--help"]
