// SPDX-License-Identifier: BSD-2-Clause
// limits: who is being limited.
function showLimits() {
    const limits = data.limits?.limits;
    if (!limits?.length)
        return replace($('limits'), el('p', { class: 'empty' }, limits ? 'No limit is configured.' : 'Waiting for figures.'));
}
onChange(['limits'], showLimits);
