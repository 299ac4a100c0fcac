"""The text of a .cif file."""


def cif_text(columns, sites, *, a, c=None, gamma=90, symmetry, name="crystal"):
    """A cell of a, a, c [Å] with right angles but for gamma [°], and its sites.

    `columns` names those of `sites`, without `_atom_site_`; `symmetry` is the lines that state it.
    """
    return "\n".join(
        [
            f"data_{name}",
            *(f"_cell_length_{axis} {length}" for axis, length in zip("abc", (a, a, c or a), strict=True)),
            *("_cell_angle_alpha 90", "_cell_angle_beta 90", f"_cell_angle_gamma {gamma}"),
            symmetry,
            "loop_",
            *(f"_atom_site_{column}" for column in columns.split()),
            sites,
        ]
    )


def space_group(symbol):
    """The line of a space group."""
    return f"_space_group_name_H-M_alt '{symbol}'"


#: Cells, as keywords of `cif_text`.
ROCKSALT = {"a": 5.936, "symmetry": space_group("F m -3 m")}
XYZ = "fract_x fract_y fract_z"
