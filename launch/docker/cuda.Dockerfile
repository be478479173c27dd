# The image of a GPU host: docker build -f launch/docker/cuda.Dockerfile -t sftmix-cuda .
# Run with --gpus all --shm-size 8g (NCCL's shared memory). CUDA itself comes with jax's wheels; the host has the driver.
FROM python:3.12-slim
WORKDIR /sftmix
COPY . .
RUN pip install --no-cache-dir -c constraints.txt '.[cuda,gcs]'
ENV PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_MEM_FRACTION=0.9
CMD ["python", "-m", "sftmix_jax.train", "--help"]
