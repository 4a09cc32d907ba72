"""The paper's comparisons, measured: methods, cases, what one case cost and reached, and the figures of them all."""
