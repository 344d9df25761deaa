// Is an index file one that liblmdb can walk without leaving it?
//
// liblmdb 0.9 trusts every page: a flipped bit in a page number or an offset is a crash or an endless loop of the agent,
// again at each start. So the file is walked here first, with bounds on everything that liblmdb follows: meta pages,
// branch and leaf pages, overflow runs, the list of free pages. Values are not looked at (they carry their own check
// sums), so the file costs one read of its pages. Layout: LMDB 0.9, data format 1, 64-bit little-endian, one unnamed
// database of plain keys. Nobody may write the file meanwhile.
#pragma once

#include "lib/base/err.h"

// 0, KILN_E_CORRUPT with what is wrong, or KILN_E_IO / KILN_E_NOMEM. An empty file is sound.
int kiln_l0_index_check(int fd, struct kiln_err *err);
