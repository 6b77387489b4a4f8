"""Speaking to S3-compatible servers: the one place that makes clients, waits out outages and words failures."""
