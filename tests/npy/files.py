"""The arrays of tests/npy, by numpy itself.

files.py write DIR      write all of them, whose contents main.rs knows by their names
files.py fixtures DIR   write the few that are kept in the repository
files.py compare A B    compare the files in B, which ndshm has saved, with those in A
"""

import os
import sys
import warnings
import zipfile

import numpy

SCALARS = "u1 i1 u2 i2 u4 i4 u8 i8 f4 f8 c8 c16 b1".split()
SHAPES = {"none": (), "empty": (0,), "hollow": (3, 0, 2), "eight": (2, 1, 2, 1, 2, 1, 2, 1)}


def values(dtype, shape):
    """The element of index k in C order is a function of k that main.rs has as well."""
    dtype = numpy.dtype(dtype)
    k = numpy.arange(numpy.prod(shape, dtype=int), dtype="u8") + numpy.uint64(1)
    if dtype.kind in "ui":
        flat = (k * numpy.uint64(0x0123456789ABCDEF)).astype(dtype.newbyteorder("="))
    elif dtype.kind == "f":
        flat = k * 0.1
    elif dtype.kind == "c":
        flat = k * 0.1 - k * 0.25j
    else:
        flat = k % 3 == 0
    return flat.astype(dtype).reshape(shape)


def records(dtype, shape):
    """Each field, and each number of an array in it, as `values` for itself."""
    records = numpy.zeros(shape, numpy.dtype(dtype))
    for name in records.dtype.names:
        field = records[name]
        field[...] = values(field.dtype.base, field.shape)
    return records


POINT = [("id", "<u4"), ("parts", "<u2", (2,)), ("at", "<f8", (2,))]
MIXED = [("größe", ">i2"), ("z", "<c8", (3,)), ("flag", "u1"), ("t", ">f8")]
TITLED = [(("a title", "x"), "<f8"), ("grid", "<i2", (2, 3))]


def accepted():
    for name in SCALARS:
        for order in "CF":
            for sign, endian in ("<", "little"), (">", "big"):
                if endian == "big" and numpy.dtype(name).str[0] == "|":
                    continue
                array = values(sign + name, (2, 3, 4))
                yield f"{name}-{order}-{endian}", numpy.asarray(array, order=order)
    for name, shape in SHAPES.items():
        yield f"f8-{name}", values("<f8", shape)
    for order in "CF":
        yield f"point-{order}", numpy.asarray(records(POINT, (3, 2)), order=order)
    yield "mixed", records(MIXED, (5,))
    yield "titled", records(TITLED, (2, 2))


def large():
    """Of several pieces: more than 8 MiB, and of elements whose size does not divide that."""
    yield "f8-large", numpy.asarray(values(">f8", (1300, 1001)), order="F")
    yield "mixed-large", records(MIXED, (400_000,))


def refused():
    yield "float16", numpy.zeros(3, "f2")
    yield "longdouble", numpy.zeros(3, "g")
    yield "clongdouble", numpy.zeros(3, "G")
    yield "datetime", numpy.zeros(3, "M8[ns]")
    yield "timedelta", numpy.zeros(3, "m8[s]")
    yield "bytes", numpy.zeros(3, "S5")
    yield "string", numpy.zeros(3, "U5")
    yield "object", numpy.array([None, 1])
    yield "void", numpy.zeros(3, "V5")
    yield "padded", numpy.zeros(3, numpy.dtype([("a", "u1"), ("b", "f8")], align=True))
    yield "padded-end", numpy.zeros(3, numpy.dtype([("a", "f8"), ("b", "u1")], align=True))
    yield "nested", numpy.zeros(3, [("a", "u1"), ("in", [("x", "f4"), ("y", "f4")])])
    yield "flags", numpy.zeros(3, [("a", "u1"), ("on", "?")])
    yield "half-field", numpy.zeros(3, [("a", "u1"), ("h", "f2")])
    yield "spaced", numpy.zeros(3, [("a b", "u1")])
    yield "nine", numpy.zeros((1,) * 9)


def write(directory, arrays):
    for name, array in arrays.items():
        numpy.save(os.path.join(directory, name + ".npy"), array)


def hostile_claim(path):
    """An archive whose list and header say 4 GB, of a compressed member without elements."""
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (4294967000,), }".ljust(117) + "\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00\x76\x00" + header.encode())
    data = bytearray(open(path, "rb").read())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (4294967000 + 128).to_bytes(4, "little")
    open(path, "wb").write(data)


def as_saved(dtype):
    """What ndshm makes of a dtype: native, without titles, fields with one axis at most."""
    if dtype.names is None:
        return dtype.newbyteorder("<")
    fields = []
    for name in dtype.names:
        field = dtype.fields[name][0]
        count = int(numpy.prod(field.shape, dtype=int))
        base = field.base.newbyteorder("<")
        fields.append((name, base) if count == 1 else (name, base, (count,)))
    return numpy.dtype(fields)


def same(name, ours, theirs):
    assert ours.dtype == as_saved(theirs.dtype), (name, ours.dtype, theirs.dtype)
    assert ours.shape == theirs.shape, (name, ours.shape, theirs.shape)
    for flag in "C_CONTIGUOUS", "F_CONTIGUOUS":
        assert ours.flags[flag] == theirs.flags[flag], (name, flag)
    for field in theirs.dtype.names or [...]:
        left, right = ours[field], theirs[field]
        assert numpy.array_equal(left.reshape(right.shape), right), (name, field)


def compare(theirs, ours):
    count = 0
    for file in sorted(os.listdir(ours)):
        left = numpy.load(os.path.join(ours, file))
        right = numpy.load(os.path.join(theirs, file))
        if file.endswith(".npy"):
            same(file, left, right)
            count += 1
            continue
        assert left.files == right.files, (file, left.files, right.files)
        for name in right.files:
            same(f"{file}[{name}]", left[name], right[name])
            count += 1
    print(count)


def main():
    # That names and padding need a newer format, and that objects are pickled.
    warnings.simplefilter("ignore")
    mode, directory, *rest = sys.argv[1:]
    arrays = dict(accepted())
    path = lambda name: os.path.join(directory, name)
    if mode == "write":
        write(directory, arrays | dict(large()))
        numpy.savez(path("stored.npz"), **arrays, **dict(large()))
        numpy.savez_compressed(path("compressed.npz"), **arrays, **dict(large()))
        write(directory, {f"refused-{name}": array for name, array in refused()})
    elif mode == "fixtures":
        write(directory, {name: arrays[name] for name in ("c16-F-big", "point-F", "f8-none")})
        numpy.savez(path("stored.npz"), **{name: arrays[name] for name in ("u2-C-big", "mixed")})
        few = {name: array for name, array in arrays.items() if not name.endswith(("F-little", "C-big"))}
        numpy.savez_compressed(path("compressed.npz"), **few)
        write(directory, {f"refused-{name}": array for name, array in refused()})
        hostile_claim(path("hostile-claim.npz"))
    else:
        compare(directory, *rest)


main()
