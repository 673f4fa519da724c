"""Models: loading, hub, the model cache, decoder layers, hooks' places, the meta device, weights put in and out."""
