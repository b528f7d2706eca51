"""The page of a data set: its rows read by columns, one row whole, and marks that become corrections."""
