"""The perovskites of the paper: site energies by element, what they say, and the search they lead to.

Section on perovskites of Xie & Grossman, Phys. Rev. Lett. 120, 145301 (2018), Figure 3, Eqs. S14-S15, Table S5.
"""
