// SPDX-License-Identifier: BSD-2-Clause
showTheme();
askHistory();
connect();
setInterval(watchConnection, 1000);
