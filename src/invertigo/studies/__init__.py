"""Studies: grids of audits that resume, run on one core or a cluster, and check their claims."""
