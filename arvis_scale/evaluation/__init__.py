"""Quality of an encoder: frozen features and probes on labelled images."""
