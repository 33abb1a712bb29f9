"""What a run leaves, and where: a durable local record first, MLflow as the shared store."""
