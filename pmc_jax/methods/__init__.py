"""Unlearning methods: which rows each round is trained on."""
