"""What tests share: servers, clusters, hosts, simulated scenes and catalogues, and what a run returns."""
