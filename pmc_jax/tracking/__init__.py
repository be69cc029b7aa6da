"""What a run keeps of itself: its folder, progress, seconds."""
