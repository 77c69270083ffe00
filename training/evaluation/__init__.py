"""How good is a profile? Its findings on a cohort against the truth: matching, metrics, intervals, tables, plots."""
