"""Multi-task datasets: building, converting, checking and sampling."""
