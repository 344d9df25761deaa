int kiln_observed_probe;
