"""Where work is done: in this process (`local`), or by Ray on many machines (`ray`)."""
