#include "consumer/run/layout.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/path.h"

static int compare_parts(const void *a, const void *b) {
    return strcmp(((const struct kiln_layout_part *)a)->dest, ((const struct kiln_layout_part *)b)->dest);
}

int kiln_layout_make(const struct kiln_run_spec *spec, struct kiln_layout *layout, struct kiln_err *err) {
    const struct kiln_layout_part scratches[] = {{spec->out_dir, NULL, spec->out_bytes, spec->inodes},
                                                 {spec->tmp_dir, NULL, spec->tmp_bytes, spec->inodes},
                                                 {spec->observer_dir, NULL, spec->observer_bytes, spec->inodes}};
    const size_t scratch_count = sizeof scratches / sizeof *scratches;
    struct kiln_layout made = {.parts = calloc(spec->binds_count + scratch_count, sizeof *made.parts)};
    if (!made.parts)
        return kiln_fail(err, KILN_E_NOMEM, "sandbox root");
    for (size_t i = 0; i < spec->binds_count; i++)
        made.parts[made.count++] = (struct kiln_layout_part){.dest = spec->binds[i].dest, .bind = &spec->binds[i]};
    for (size_t i = 0; i < scratch_count; i++)
        made.parts[made.count++] = scratches[i];
    qsort(made.parts, made.count, sizeof *made.parts, compare_parts); // a path is greater than its prefixes
    for (size_t i = 1; i < made.count; i++)
        if (!strcmp(made.parts[i - 1].dest, made.parts[i].dest)) {
            kiln_fail(err, KILN_E_INVAL, "two mounts at %s", made.parts[i].dest);
            kiln_layout_release(&made);
            return KILN_E_INVAL;
        }
    *layout = made;
    return 0;
}

void kiln_layout_release(struct kiln_layout *layout) {
    free(layout->parts);
    *layout = (struct kiln_layout){0};
}

const struct kiln_layout_part *kiln_layout_holder(const struct kiln_layout *layout, size_t among, const char *dest,
                                                  const char **rest) {
    for (size_t i = among; i-- > 0;) {
        *rest = kiln_path_beneath(dest, layout->parts[i].dest);
        if (*rest)
            return &layout->parts[i];
    }
    *rest = dest + 1;
    return NULL;
}

int kiln_layout_check_free(const struct kiln_layout *layout, const char *path, struct kiln_err *err) {
    const char *rest;
    const struct kiln_layout_part *in = kiln_layout_holder(layout, layout->count, path, &rest);
    return in ? kiln_fail(err, KILN_E_INVAL, "%s lies in the mount at %s", path, in->dest) : 0;
}

bool kiln_layout_makes_cwd(const struct kiln_layout *layout, const struct kiln_run_spec *spec) {
    const char *rest;
    return strcmp(spec->cwd, "/") && !kiln_layout_holder(layout, layout->count, spec->cwd, &rest);
}
