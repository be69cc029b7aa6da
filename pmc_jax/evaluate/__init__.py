"""What a model still knows: metrics as pure functions, one file per benchmark."""
