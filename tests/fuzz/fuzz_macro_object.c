// Any bytes as a proc-macro object: a verdict, within bounds and in time.
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/fs.h"
#include "lib/macro/macro_object.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static int fd = -1;
    if (fd < 0)
        fd = memfd_create("object", MFD_CLOEXEC);
    if (ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0 || kiln_fs_write_all(fd, data, size, NULL))
        abort();
    enum kiln_macro_verdict verdict;
    if (kiln_macro_object_check(fd, &verdict, NULL) || verdict > KILN_MACRO_UNKNOWN)
        abort();
    return 0;
}
