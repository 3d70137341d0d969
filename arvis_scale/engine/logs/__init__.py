"""What a run writes about its course: metrics.jsonl, TensorBoard, traces."""
