"""What each part of AlignX buys: the table of a finished run with parts left out or changed."""
