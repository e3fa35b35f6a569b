"""The settings of a reference sample."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from landscribe.spec import InputPath, Seed, Spec, split_at_commas

MOST_UNITS = 10**6
"""Sampling units that one sample may have: somebody labels each of them."""

Share = Annotated[float, Field(gt=0, lt=1)]
Size = Annotated[int, Field(ge=1, le=MOST_UNITS)]


def _by_name(value: Any) -> Any:
    """Read "forest=50, water=60" as a dict, in a text or a list of texts."""
    texts = split_at_commas(value) if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) and "=" in text for text in texts):
        return value
    pairs = (text.rpartition("=") for text in texts)
    return {name.strip(): number.strip() for name, _, number in pairs}


ByName = BeforeValidator(_by_name)


class SampleSpec(Spec):
    """How a reference sample is drawn from a map.

    Its size is given (`size`, or numbers by stratum in `allocation`), or follows from a precision (`standard_error` or
    `half_width`) and the expected accuracies.
    """

    design: Literal["stratified", "simple", "systematic", "cluster"] = "stratified"
    """stratified: by class of the map, or by strata; simple: simple random; systematic: a lattice with a random start;
    cluster: two stages, squares of pixels and pixels in them."""
    size: Size | None = None
    """Sampling units to draw. Default: from standard_error or half_width."""
    standard_error: Share | None = None
    """Standard error of the overall accuracy that the sample is to reach, such as 0.01."""
    half_width: Share | None = None
    """Half-width of the confidence interval of the overall accuracy that the sample is to reach, such as 0.02."""
    confidence: Share = 0.95
    """Confidence level of intervals."""
    expected_accuracy: Annotated[Share | dict[str, Share], ByName] = 0.8
    """Expected user's accuracy of all classes or, as NAME=VALUE with commas, of each; 0.8 for a class that is not
    named. Of strata that are no classes: the expected share of correct units."""
    allocation: Annotated[
        Literal["auto", "proportional", "equal", "neyman"] | dict[str, Annotated[int, Field(ge=0, le=MOST_UNITS)]],
        ByName,
    ] = "auto"
    """How units are shared among strata: auto gives each stratum 50, and the rest by their sizes (Olofsson et al. 2014,
    doi:10.1016/j.rse.2014.02.015); or numbers, as NAME=VALUE with commas."""
    unit: int = Field(1, ge=1, le=1000)
    """Side of a sampling unit in pixels: 1 is a pixel, more a square block of pixels."""
    class_table: InputPath | None = None
    """Names and colours of the classes, in place of the map's own class table: a CSV file with the columns value, name
    and, if there are any, colour (#rrggbb). It lists all values of the map, and may list classes that only the
    reference has."""
    strata: InputPath | None = None
    """Class raster on the grid of the map whose classes are the strata, such as change. Default: the classes of the
    map."""
    buffer_around: str | None = None
    """Class around which a buffer is a stratum of its own, for pixels that the map omits."""
    buffer: Annotated[float, Field(gt=0, le=1e5)] | None = None
    """Width of the buffer in metres."""
    area: InputPath | None = None
    """Area of interest: draw only inside these polygons."""
    clusters: Size | None = None
    """Of a cluster design: squares to draw."""
    cluster_size: int | None = Field(None, ge=4, le=4096)
    """Of a cluster design: side of a square in pixels."""
    per_cluster: Size | None = None
    """Of a cluster design: pixels to draw in each square; all of its valid pixels if they are fewer."""
    seed: Seed = 0
    """Random seed."""

    @model_validator(mode="after")
    def _require_one_size(self) -> Self:
        given = [name for name in ("size", "standard_error", "half_width") if getattr(self, name) is not None]
        if isinstance(self.allocation, dict):
            given.append("allocation in numbers")
        if self.design == "cluster":
            missing = [n for n in ("clusters", "cluster_size", "per_cluster") if getattr(self, n) is None]
            if missing:
                raise ValueError(f"a cluster design needs clusters, cluster_size and per_cluster; add {missing[0]}")
            if given:
                raise ValueError(f"a cluster design has the size clusters x per_cluster; leave out {given[0]}")
        elif len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both decide the size; give one of them")
        elif not given:
            raise ValueError("the size is missing; give size, standard_error, half_width or an allocation in numbers")
        return self

    @model_validator(mode="after")
    def _require_fields_of_design(self) -> Self:
        of_design = {
            "stratified": ("strata", "buffer_around", "buffer"),
            "cluster": ("clusters", "cluster_size", "per_cluster"),
        }
        for design, names in of_design.items():
            odd = [name for name in names if getattr(self, name) is not None]
            if odd and self.design != design:
                raise ValueError(f"{odd[0]} belongs to design {design}, but design is {self.design}; leave it out")
        if self.allocation != "auto" and self.design != "stratified":
            raise ValueError(f"allocation belongs to design stratified, but design is {self.design}; leave it out")
        if (self.buffer is None) != (self.buffer_around is None):
            raise ValueError("buffer_around and buffer belong together; give the class and the metres")
        if self.design == "cluster" and self.unit != 1:
            raise ValueError("a cluster design draws pixels; leave out unit")
        return self

    @property
    def kind(self) -> Literal["simple random", "stratified", "systematic", "cluster"]:
        """The design by its full name."""
        return "simple random" if self.design == "simple" else self.design
