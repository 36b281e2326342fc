"""Writes and compares the arrays of tests/npy with numpy.

files.py write DIR      write all of them; main.rs knows the contents by the names
files.py fixtures DIR   write the few that are kept in the repository
files.py compare A B    compare the files in B, which ndshm has saved, with those in A
files.py dialects DIR   write files as other programs do, and archives with other members than
                        numbers
files.py judge A B      compare the files in B, which ndshm has saved, with what numpy reads in A
files.py unchanged A B  compare the opaque arrays in B, which ndshm has saved, with those in A
files.py remedies LIST  evaluate the remedies of errors: lines of the file, the new file, the text
"""

import os
import struct
import sys
import warnings
import zipfile

import numpy
import numpy.lib.recfunctions

SCALARS = "u1 i1 u2 i2 u4 i4 u8 i8 f4 f8 c8 c16 b1".split()
SHAPES = {"none": (), "empty": (0,), "hollow": (3, 0, 2), "eight": (2, 1, 2, 1, 2, 1, 2, 1)}


def values(dtype, shape):
    """Returns an array whose elements are a function of their index in C order, as in main.rs."""
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
    """Returns records. Each field is filled like an array of its own by `values`."""
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
    """Yields arrays of more than 8 MiB, saved in pieces; one has elements that do not divide that."""
    yield "f8-large", numpy.asarray(values(">f8", (1300, 1001)), order="F")
    yield "mixed-large", records(MIXED, (400_000,))


def opaque():
    """Yields arrays with elements that ndshm has no type for, and keeps as they are."""
    k = numpy.arange(1, 7)
    yield "float16", (k / 3).astype("f2")
    yield "float16-big", (k / 3).astype(">f2")
    yield "longdouble", (k / 3).astype("g")
    yield "clongdouble", (k / 3 + 2j).astype("G")
    yield "datetime", k.astype("M8[ns]").reshape(2, 3)
    yield "datetime-big", k.astype(">M8[25s]")
    yield "timedelta", k.astype("m8[s]")
    yield "timedelta-plain", k.astype("m8")
    yield "bytes", numpy.array([b"one", b"two", b"three"])
    yield "string", numpy.asarray(numpy.array([["one", "größe"], ["", "x"]]), order="F")
    yield "string-big", numpy.array(["one", "größe"]).astype(">U5")
    yield "void", numpy.frombuffer(b"0123456789", "V5")
    yield "empty-string", numpy.array("")
    yield "scalar-string", numpy.array("neutral")
    yield "scalar-date", numpy.array("2024-01-01", "M8[D]")
    yield "half-field", filled([("a", "u1"), ("h", "f2")], 3)
    yield "date-field", filled([("it's a \\", "M8[s]"), ("x", ">f8")], 3)
    yield "text-field", filled([("id", "S4"), ("x", "f8")], (2, 2))
    yield "inner-text", filled([("p", [("id", "U4"), ("x", "f8")], (2, 3)), ("on", "?")], 2)
    yield "same-way", filled([("p.x", "f4"), ("p", [("x", "f4")])], 3)
    gap = numpy.dtype([("a", "u1"), (("a title", "h"), "f2", (3,)), ("größe", "f8")], align=True)
    yield "gap-field", filled(gap, (2, 2))


def filled(dtype, shape):
    """Returns records with bytes other than zero in each field that is no structure."""
    array = numpy.zeros(shape, dtype)
    data = numpy.frombuffer(bytearray(array.size * array.itemsize), "u1")
    data[...] = numpy.arange(data.size) % 3
    result = numpy.frombuffer(data.tobytes(), array.dtype).reshape(shape)
    for name in array.dtype.names:
        if array.dtype[name].base.kind != "V":
            array[name] = result[name]
    return array


def refused():
    yield "object", numpy.array([None, 1])
    yield "object-field", numpy.ones(3, [("o", "O"), ("x", "f8")])
    yield "many-fields", numpy.zeros(3, [(f"f{at}", "f8") for at in range(300)])
    yield "bool-2", numpy.frombuffer(bytes([0, 1, 2]), "?")
    yield "nine", numpy.zeros((1,) * 9)


def structures():
    """Yields structures that ndshm changes: it removes gaps and flattens inner fields."""
    inner = numpy.dtype([("x", "<i2"), ("y", ">f4")], align=True)
    aligned = {"align": True}
    yield "gap", records(numpy.dtype([("a", "u1"), ("b", ">f8")], **aligned), (3,))
    yield "gap-end", records(numpy.dtype([("a", "<f8"), ("b", "u1")], **aligned), (2, 3))
    yield "flags", records([("a", "u1"), ("on", "?"), ("off", "?", (3,))], (4,))
    yield "names", records([("a b", "u1"), ("pos.x", "<f4"), ("v (m/s)", ">f8"), ("it's", "i1")], (3,))
    yield "inner", nested(numpy.dtype([("a", "u1"), ("in", inner, (2, 3))], **aligned), (3,))
    deep = numpy.dtype([("p", inner), ("q", [("r", inner, (2,)), ("n", "u1")])])
    yield "deep", nested(deep, (5, 2))
    yield "gap-large", records(numpy.dtype([("a", "u1"), ("b", ">f8")], **aligned), (700_000,))


def nested(dtype, shape):
    """Returns an array with distinct numbers in each field of each structure."""
    array = numpy.zeros(shape, dtype)
    for at, (name, field) in enumerate(leaves(array)):
        field[...] = numpy.arange(field.size).reshape(field.shape) % 120 + at
    return array


def leaves(array, name=""):
    """Returns the fields of numbers, each with the names of the path to it."""
    if array.dtype.names is None:
        return [(name, array)]
    way = name + "." if name else ""
    return [leaf for field in array.dtype.names for leaf in leaves(array[field], way + field)]


def spelled():
    """Yields types in the notation of `numpy.dtype`, with the array that numpy makes of each."""
    names = """u1 i1 u2 i2 u4 i4 u8 i8 f4 f8 c8 c16 b1 ? b B h H i I l L q Q p P n N f d F D bool bool_
        int8 byte uint8 ubyte int16 short uint16 ushort int32 intc uint32 uintc int64 int int_ intp
        uint64 uint uintp long ulong longlong ulonglong float32 single float64 float double complex64
        csingle complex128 complex cdouble"""
    for name in names.split():
        for order in "", "<", ">", "=", "|":
            try:
                dtype = numpy.lib.format.descr_to_dtype(order + name)
            except TypeError:
                continue
            yield order + name, values(dtype, (3,))


def header(descr="'<f8'", order="False", shape="(3,)"):
    return "{'descr': %s, 'fortran_order': %s, 'shape': %s, }" % (descr, order, shape)


def dialects(directory):
    path = lambda name: os.path.join(directory, name)

    def raw(name, text, data):
        text = text.encode("latin1") + b"\n"
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text))
        with open(path(name + ".npy"), "wb") as file:
            file.write(start + text + data)

    for at, (name, array) in enumerate(spelled()):
        raw(f"type-{at}", header(repr(name)), array.tobytes())
    data = values("<f8", (3,)).tobytes()
    for at, text in enumerate(
        [
            header("'<' 'f8'"),
            header("'''<f8'''"),
            header("r'<f8'"),
            header(shape="(0x3,)"),
            header(shape="(+3,)"),
            header(shape="(3L,)"),
            header(order="True"),
            "{u'shape':(3,),\t'fortran_order':False,\r\n\"descr\":\"<f8\"}",
        ]
    ):
        raw(f"text-{at}", text, data)
    write(directory, {f"structure-{name}": array for name, array in structures()})
    partial(path("partial.npz"), numpy.savez)
    partial(path("partial-compressed.npz"), numpy.savez_compressed)
    for name, method in ("bzip2", zipfile.ZIP_BZIP2), ("lzma", zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path(f"refused-{name}.npz"), "w", method) as archive:
            with archive.open("x.npy", "w") as member:
                numpy.save(member, numpy.arange(3.0))


def partial(path, save):
    """Writes an archive like `scipy.sparse.save_npz` and others: numbers and other members."""
    numbers = {"data": numpy.arange(4.0), "indices": numpy.arange(4, dtype="<i4")}
    others = {
        "format": numpy.array(b"csr"),
        "gender": numpy.array("neutral"),
        "when": numpy.array(["2024-01-01"], "M8[D]"),
        "info": numpy.array({"a": 1}, dtype=object),
        "flags": numpy.frombuffer(bytes([0, 1, 2]), "?"),
    }
    save(path, **others, **numbers, gap=dict(structures())["gap"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("meta.json", "{}")
        archive.writestr("cut.npy", b"\x93NUMPY")


def judge(theirs, ours):
    """Asserts that ndshm saved the arrays that numpy reads, except for differences in its guide."""
    count = 0
    for file in sorted(os.listdir(ours)):
        left = numpy.load(os.path.join(ours, file))
        right = numpy.load(os.path.join(theirs, file))
        assert left.shape == right.shape, (file, left.shape, right.shape)
        pairs = list(zip(leaves(left), leaves(right), strict=True))
        assert left.dtype.names is None or len(left.dtype.names) == len(pairs), file
        for (name, one), (way, other) in pairs:
            assert name == way, (file, name, way)
            kind = "u1" if other.dtype.kind == "b" and way else other.dtype.newbyteorder("<")
            assert one.dtype == kind, (file, one.dtype, other.dtype)
            # Several axes of a field become one, in C order.
            assert numpy.array_equal(one.reshape(other.shape), other), (file, name, one, other)
        count += 1
    print(count)


def unchanged(theirs, ours):
    """Asserts that ndshm saved the opaque arrays with the same type and the same bytes."""
    count = 0
    for file in sorted(os.listdir(ours)):
        left = numpy.load(os.path.join(ours, file))
        right = numpy.load(os.path.join(theirs, file))
        pairs = [(left, right)]
        if file.endswith(".npz"):
            assert left.files == right.files, (file, left.files, right.files)
            pairs = [(left[name], right[name]) for name in right.files]
        for one, other in pairs:
            assert one.dtype == other.dtype, (file, one.dtype, other.dtype)
            assert one.dtype.descr == other.dtype.descr, (file, one.dtype, other.dtype)
            assert one.shape == other.shape, (file, one.shape, other.shape)
            assert one.flags["F_CONTIGUOUS"] == other.flags["F_CONTIGUOUS"], file
            # Bytes of padding and gaps are not kept when numpy reads an archive.
            padded = one.dtype.char in "gG" or one.dtype.names is not None
            equal = numpy.array_equal(one, other) if padded else one.tobytes() == other.tobytes()
            assert equal, (file, one, other)
            count += 1
    print(count)


def remedies(listing):
    """Evaluates each remedy as a user would, where `a` is the array of the file."""
    for line in open(listing, encoding="utf8").read().splitlines():
        old, new, expression = line.split("\t")
        names = {"numpy": numpy, "old": old, "new": new}
        if old.endswith(".npz"):
            eval(expression, names)
        else:
            names["a"] = numpy.load(old, allow_pickle=True)
            numpy.save(new, eval(expression, names), allow_pickle=False)


def write(directory, arrays):
    for name, array in arrays.items():
        numpy.save(os.path.join(directory, name + ".npy"), array)


def hostile_claim(path):
    """Writes an archive whose directory and header claim 4 GB for a member without elements."""
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (4294967000,), }".ljust(117) + "\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00\x76\x00" + header.encode())
    data = bytearray(open(path, "rb").read())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (4294967000 + 128).to_bytes(4, "little")
    open(path, "wb").write(data)


def as_saved(dtype):
    """Returns the dtype that ndshm saves: native, without titles, fields with at most one axis."""
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
    # numpy warns that names and padding need a newer format, and that objects are pickled.
    warnings.simplefilter("ignore")
    mode, directory, *rest = sys.argv[1:]
    arrays = dict(accepted())
    path = lambda name: os.path.join(directory, name)
    if mode == "write":
        write(directory, arrays | dict(large()))
        numpy.savez(path("stored.npz"), **arrays, **dict(large()))
        numpy.savez_compressed(path("compressed.npz"), **arrays, **dict(large()))
        write(directory, {f"refused-{name}": array for name, array in refused()})
        write(directory, {f"opaque-{name}": array for name, array in opaque()})
        numpy.savez(path("opaque.npz"), **dict(opaque()))
        numpy.savez_compressed(path("opaque-compressed.npz"), **dict(opaque()))
    elif mode == "fixtures":
        write(directory, {name: arrays[name] for name in ("c16-F-big", "point-F", "f8-none")})
        numpy.savez(path("stored.npz"), **{name: arrays[name] for name in ("u2-C-big", "mixed")})
        few = {name: array for name, array in arrays.items() if not name.endswith(("F-little", "C-big"))}
        numpy.savez_compressed(path("compressed.npz"), **few)
        write(directory, {f"refused-{name}": array for name, array in refused()})
        write(directory, {f"opaque-{name}": array for name, array in opaque()})
        few = {name: array for name, array in structures() if array.size < 100}
        write(directory, {f"structure-{name}": array for name, array in few.items()})
        partial(path("partial.npz"), numpy.savez_compressed)
        hostile_claim(path("hostile-claim.npz"))
    elif mode == "dialects":
        dialects(directory)
    elif mode == "judge":
        judge(directory, *rest)
    elif mode == "unchanged":
        unchanged(directory, *rest)
    elif mode == "remedies":
        remedies(directory)
    else:
        compare(directory, *rest)


main()
