"""What the paper does with the optimal denoiser, and what it is compared with: a module a subject.

geometry/           trajectories: deviation, bending, shells      analytic/          denoisers known in closed form
interpolation       of latents                                    symmetry           spontaneous breaking, late start
score_deviation     learned against optimal                       likelihood_ascent  along r and the Euler step
quality             distances between sets of images              mean_shift         modes of the smoothed data
lanczos             the largest eigenvalue of an operator

Imports from everything below it: `base`, `schedules`, `reference`, `denoiser`, `solvers`.
"""
