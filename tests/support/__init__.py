"""Helpers of tests: servers, clusters, hosts, simulated scenes and catalogues, and results of commands."""
