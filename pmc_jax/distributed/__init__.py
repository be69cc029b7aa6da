"""Device meshes and several processes."""
