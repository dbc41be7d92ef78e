"""The broker's SQL, one module per noun: functions over a `Transaction`, called inside units. No clock, no I/O else."""
