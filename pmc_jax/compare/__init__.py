"""A comparison's table: what its runs measured, which grid point is chosen, tables, figures, the page."""
