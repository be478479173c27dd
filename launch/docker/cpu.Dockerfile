# The toy, and every verb, without an accelerator: docker build -f launch/docker/cpu.Dockerfile -t sftmix-cpu .
FROM python:3.12-slim
WORKDIR /sftmix
COPY . .
RUN pip install --no-cache-dir -c constraints.txt .
ENV PYTHONUNBUFFERED=1
CMD ["python", "-m", "sftmix_jax.train", "--config", "quickstart.py", "--workdir", "runs/quickstart"]
