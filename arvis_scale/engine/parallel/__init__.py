"""How a run is spread over processes: DeepSpeed behind one interface, its settings, optimizer and schedule."""
