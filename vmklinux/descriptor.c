/* The walk over structures in memory for native drivers: m fields of n structures in one call. */
#include "vmklinux/descriptor.h"

static char *structure(const struct native_table *table, uint32_t slot)
{
    return table->memory + (uint64_t)(slot % table->count) * table->stride;
}

void native_table_load(const struct native_table *table, const struct native_field *fields, unsigned m, const uint32_t *slots,
                       unsigned n, uint64_t *values)
{
    for (unsigned i = 0; i < n; i++) {
        const char *at = structure(table, slots[i]);
        for (unsigned f = 0; f < m; f++)
            values[(uint64_t)f * n + i] = native_get(at, &fields[f]);
    }
}

int64_t native_table_store(const struct native_table *table, const struct native_field *fields, unsigned m,
                           const uint32_t *slots, unsigned n, const uint64_t *values)
{
    for (unsigned f = 0; f < m; f++)
        for (unsigned i = 0; i < n; i++)
            if (values[(uint64_t)f * n + i] > native_most(&fields[f]))
                return (int64_t)f * n + i;
    for (unsigned i = 0; i < n; i++) {
        char *at = structure(table, slots[i]);
        for (unsigned f = 0; f < m; f++)
            native_set(at, &fields[f], values[(uint64_t)f * n + i]);
    }
    return -1;
}
