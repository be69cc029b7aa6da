"""The table of settings, a file for each part of a run. `pmc_jax.config` puts them together."""
