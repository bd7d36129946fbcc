"""Linear models of images, a family of genpipe in a package of its own."""

from gen_models import Family

LINEAR = Family("linear_models.linear", "linear_models.linear_space")
